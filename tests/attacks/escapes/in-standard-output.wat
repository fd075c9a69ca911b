;; Prints the same, and bytes that are no text.
;; expect: succeeded

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush" (func $blocking_write (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $blocking_write (call $get_stdout) (i32.const 4096) (i32.const 54) (i32.const 2048))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00\ff\9b\0a")
