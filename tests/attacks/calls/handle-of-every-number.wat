;; Closes every handle number there could be, from the greatest down.
;; expect: trapped
;; says: unknown handle index

(import "flowstone:asset/inputs@0.1.0" "[resource-drop]reader" (func $drop_reader (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $drop_reader (i32.const 0xffffffff))
  (i32.const 1024))
