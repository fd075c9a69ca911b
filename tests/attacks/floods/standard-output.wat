;; Prints for ever, without a line feed.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush" (func $blocking_write (param i32 i32 i32 i32)))
(memory (export "memory") 4)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $s i32)
  (local.set $s (call $get_stdout))
  (loop $again (call $blocking_write (local.get $s) (i32.const 65536) (i32.const 4096) (i32.const 2048)) (br $again)) unreachable)
