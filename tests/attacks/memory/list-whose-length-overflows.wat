;; Passes a list whose length in bytes does not fit 32 bits.
;; expect: trapped
;; says: out of bounds

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $log (i32.const 2) (i32.const 4096) (i32.const 1) (i32.const 4096) (i32.const 0x10000001))
  (i32.const 1024))
