;; Opens its input and closes it, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[resource-drop]reader" (func $drop_reader (param i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048)) (call $drop_reader (i32.load (i32.const 2052))) (br $again)) unreachable)
(data (i32.const 4096) "raw")
