;; Loops for ever where it is asked what its assets are.
;; expect: not-described out-of-fuel
;; within: 20s

(func $describe (result i32)
  (loop $again (br $again)) unreachable)
