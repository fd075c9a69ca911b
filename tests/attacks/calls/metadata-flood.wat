;; Replaces its metadata, millions of times.
;; expect: out-of-fuel
;; limits: fuel=1M timeout=5s

(import "flowstone:asset/output@0.1.0" "set-metadata" (func $set_metadata (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $set_metadata (i32.const 0) (i32.const 0) (i32.const 2048)) (br $again)) unreachable)
