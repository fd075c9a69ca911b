;; Logs lines with 100,000 empty fields.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(memory (export "memory") 30)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 131072) (i32.const 100000)) (br $again)) unreachable)
