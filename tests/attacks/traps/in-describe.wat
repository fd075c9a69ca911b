;; Traps where it is asked what its assets are.
;; expect: not-described trapped
;; says: unreachable

(func $describe (result i32) unreachable)
