;; Leaves part of a line in each of thousands of streams.
;; expect: trapped
;; says: resource table

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush" (func $blocking_write (param i32 i32 i32 i32)))
(memory (export "memory") 4)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $blocking_write (call $get_stdout) (i32.const 65536) (i32.const 4096) (i32.const 2048)) (br $again)) unreachable)
