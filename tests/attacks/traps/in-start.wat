;; Traps in a start function.
;; expect: not-described trapped
;; says: while it was instantiated

(func $start unreachable)
(start $start)
