;; Reads the same megabyte of its input, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.read" (func $read_input (param i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.seek" (func $seek (param i32 i64 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $reader i32)
  (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048))
  (local.set $reader (i32.load (i32.const 2052)))
  (loop $again (global.set $heap (i32.const 65536)) (call $seek (local.get $reader) (i64.const 1) (i32.const 2048)) (call $read_input (local.get $reader) (i32.const -1) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "raw")
