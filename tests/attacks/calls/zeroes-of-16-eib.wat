;; Has its standard output write all the zeroes that a number can ask for.
;; expect: trapped

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.write-zeroes" (func $write_zeroes (param i32 i64 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $write_zeroes (call $get_stdout) (i64.const -1) (i32.const 2048))
  (i32.const 1024))
