;; Sleeps until the end of time, by a real clock that it was granted.
;; expect: timed-out
;; limits: timeout=300ms
;; grants: clock

(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-instant" (func $subscribe_instant (param i64) (result i32)))
(import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $block (call $subscribe_instant (i64.const -1)))
  (i32.const 1024))
