;; Draws a megabyte of randomness at a time, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random_bytes (param i64 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (global.set $heap (i32.const 65536)) (call $random_bytes (i64.const 1048576) (i32.const 2048)) (br $again)) unreachable)
