;; Gives the host room for a list at an odd address.
;; expect: trapped
;; says: realloc return: result not aligned

(import "flowstone:asset/inputs@0.1.0" "versions" (func $versions (param i32 i32 i32)))
(global $calls (mut i32) (i32.const 0))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (i32.add (i32.const 65536) (i32.sub (global.get $calls) (i32.const 1))))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $versions (i32.const 4096) (i32.const 3) (i32.const 2048))
  (i32.const 1024))
(data (i32.const 4096) "raw")
