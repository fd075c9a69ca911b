;; Passes a string of 20 MB in one call.
;; expect: trapped
;; says: fuel allocated for hostcalls has been exhausted
;; limits: memory=32MiB

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(memory (export "memory") 320)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 2) (i32.const 65536) (i32.const 20000000) (i32.const 0) (i32.const 0))
  (i32.const 1024))
