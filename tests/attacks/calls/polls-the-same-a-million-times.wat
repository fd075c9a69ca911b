;; Waits for one timer, named a million times in one list.
;; expect: trapped
;; limits: fuel=1G timeout=5s memory=64MiB

(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe_duration (param i64) (result i32)))
(import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))
(memory (export "memory") 100)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $p i32) (local $at i32)
  (local.set $p (call $subscribe_duration (i64.const 1)))
  (local.set $at (i32.const 65536))
  (loop $again
    (i32.store (local.get $at) (local.get $p))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (br_if $again (i32.lt_u (local.get $at) (i32.const 4065536))))
  (call $poll (i32.const 65536) (i32.const 1000000) (i32.const 2048))
  (i32.const 1024))
