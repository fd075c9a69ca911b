;; Reads nothing, millions of times, whatever it is told.
;; expect: out-of-fuel
;; limits: fuel=1M memory=64MiB timeout=5s

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.read" (func $read_input (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $reader i32)
  (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048))
  (local.set $reader (i32.load (i32.const 2052)))
  (loop $again (call $read_input (local.get $reader) (i32.const 0) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "raw")
