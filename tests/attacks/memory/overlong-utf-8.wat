;; Passes a string with a slash in an overlong form of UTF-8.
;; expect: trapped
;; says: utf-8

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 2) (i32.const 4096) (i32.const 2) (i32.const 0) (i32.const 0))
  (i32.const 1024))
(data (i32.const 4096) "\c0\af")
