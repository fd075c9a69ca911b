;; Opens its input, and reads through the next number, where the reader of another would be.
;; expect: trapped
;; says: unknown handle index

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.read" (func $read_input (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $reader i32)
  (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048))
  (local.set $reader (i32.load (i32.const 2052)))
  (call $read_input (i32.add (local.get $reader) (i32.const 1)) (i32.const 1) (i32.const 2048))
  (i32.const 1024))
(data (i32.const 4096) "raw")
