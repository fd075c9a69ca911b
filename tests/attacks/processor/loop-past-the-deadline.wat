;; Loops for ever, with more fuel than its time is worth.
;; expect: timed-out
;; says: at its deadline of 300 ms
;; limits: fuel=1T timeout=300ms

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (br $again)) unreachable)
