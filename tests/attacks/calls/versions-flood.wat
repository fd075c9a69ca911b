;; Lists its input, millions of times.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(import "flowstone:asset/inputs@0.1.0" "versions" (func $versions (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (global.set $heap (i32.const 65536)) (call $versions (i32.const 4096) (i32.const 3) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "raw")
