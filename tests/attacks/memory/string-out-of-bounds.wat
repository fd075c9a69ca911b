;; Passes a string that ends outside its memory.
;; expect: trapped
;; says: out of bounds

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 2) (i32.const 65536) (i32.const 1000000) (i32.const 0) (i32.const 0))
  (i32.const 1024))
