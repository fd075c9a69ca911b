;; Logs a line of 15 MB, again and again.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(memory (export "memory") 250)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $log (i32.const 2) (i32.const 65536) (i32.const 15000000) (i32.const 0) (i32.const 0)) (br $again)) unreachable)
