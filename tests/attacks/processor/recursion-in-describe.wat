;; Calls itself without end where it is asked what its assets are.
;; expect: not-described trapped
;; says: call stack exhausted

(func $describe (result i32) (i32.add (call $describe) (i32.const 1)))
