;; Sets timers, and drops none.
;; expect: trapped
;; says: resource table

(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $subscribe_duration (param i64) (result i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (call $subscribe_duration (i64.const 1))) (br $again)) unreachable)
