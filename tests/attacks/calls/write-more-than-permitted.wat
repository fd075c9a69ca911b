;; Writes more to its standard output than it was told that it may.
;; expect: trapped
;; says: permitted

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.write" (func $stream_write (param i32 i32 i32 i32)))
(memory (export "memory") 20)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $stream_write (call $get_stdout) (i32.const 65536) (i32.const 1000000) (i32.const 2048))
  (i32.const 1024))
