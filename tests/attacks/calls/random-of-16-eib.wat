;; Draws all the randomness that a number can ask for.
;; expect: trapped
;; says: more than 1048576

(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random_bytes (param i64 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $random_bytes (i64.const -1) (i32.const 2048))
  (i32.const 1024))
