;; Reads through a handle that it made up.
;; expect: trapped
;; says: unknown handle index

(import "flowstone:asset/inputs@0.1.0" "[method]reader.read" (func $read_input (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $read_input (i32.const 3) (i32.const 1) (i32.const 2048))
  (i32.const 1024))
