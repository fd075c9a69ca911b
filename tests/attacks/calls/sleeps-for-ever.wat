;; Sleeps until the end of time.
;; expect: succeeded

(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-instant" (func $subscribe_instant (param i64) (result i32)))
(import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $block (call $subscribe_instant (i64.const -1)))
  (i32.const 1024))
