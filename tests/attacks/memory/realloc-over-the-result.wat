;; Gives the host room where it is about to return where that room is.
;; expect: succeeded

(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random_bytes (param i64 i32)))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 2048))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $random_bytes (i64.const 64) (i32.const 2048))
  (i32.const 1024))
