;; Logs for ever.
;; expect: out-of-fuel
;; limits: fuel=1M timeout=5s

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $log (i32.const 2) (i32.const 4096) (i32.const 80) (i32.const 0) (i32.const 0)) (br $again)) unreachable)
