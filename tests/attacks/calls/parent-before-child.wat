;; Closes a stream while it holds what waits for it.
;; expect: trapped
;; says: children

(import "wasi:cli/stdin@0.2.12" "get-stdin" (func $get_stdin (result i32)))
(import "wasi:io/streams@0.2.12" "[method]input-stream.subscribe" (func $subscribe_input (param i32) (result i32)))
(import "wasi:io/streams@0.2.12" "[resource-drop]input-stream" (func $drop_input_stream (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $s i32)
  (local.set $s (call $get_stdin))
  (drop (call $subscribe_input (local.get $s)))
  (call $drop_input_stream (local.get $s))
  (i32.const 1024))
