;; Reads the clock, millions of times.
;; expect: out-of-fuel
;; limits: fuel=1M timeout=5s

(import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $now (result i64)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (call $now)) (br $again)) unreachable)
