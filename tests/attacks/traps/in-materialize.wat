;; Traps where it is asked to make its asset, with output and log behind it.
;; expect: trapped
;; says: unreachable

(import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $write (i32.const 0) (i32.const 65536) (i32.const 2048))
  unreachable)
