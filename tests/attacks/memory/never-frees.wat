;; Has the host list its input for ever, and frees none of it.
;; expect: out-of-memory
;; limits: fuel=1G memory=4MiB timeout=5s

(import "flowstone:asset/inputs@0.1.0" "versions" (func $versions (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $versions (i32.const 4096) (i32.const 3) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "raw")
