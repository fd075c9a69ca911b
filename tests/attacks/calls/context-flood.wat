;; Asks what its job is, millions of times.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/context@0.1.0" "current" (func $current (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (global.set $heap (i32.const 65536)) (call $current (i32.const 2048)) (br $again)) unreachable)
