;; Loops for ever in a start function, before anything was asked of it.
;; expect: not-described out-of-fuel
;; says: while it was instantiated
;; within: 20s

(func $start (loop $again (br $again)))
(start $start)
