;; Sleeps for a nanosecond, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe_duration (param i64) (result i32)))
(import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $p i32)
  (local.set $p (call $subscribe_duration (i64.const 1)))
  (loop $again (call $block (local.get $p)) (br $again)) unreachable)
