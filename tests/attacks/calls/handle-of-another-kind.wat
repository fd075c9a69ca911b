;; Reads its input through a handle of its standard output.
;; expect: trapped
;; says: wrong type

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.read" (func $read_input (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $read_input (call $get_stdout) (i32.const 1) (i32.const 2048))
  (i32.const 1024))
