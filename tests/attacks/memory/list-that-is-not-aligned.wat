;; Passes a list at an odd address.
;; expect: trapped
;; says: aligned

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 2) (i32.const 4096) (i32.const 1) (i32.const 4097) (i32.const 1))
  (i32.const 1024))
