;; Draws numbers, millions of times.
;; expect: out-of-fuel
;; limits: fuel=1M timeout=5s

(import "wasi:random/random@0.2.12" "get-random-u64" (func $random_u64 (result i64)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (call $random_u64)) (br $again)) unreachable)
