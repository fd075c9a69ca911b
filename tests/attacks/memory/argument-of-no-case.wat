;; Logs at a level that does not exist.
;; expect: trapped
;; says: discriminant

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 99) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0))
  (i32.const 1024))
