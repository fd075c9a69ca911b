;; Traps in a start function, but not while it is deployed.
;; expect: trapped
;; says: while it was instantiated

(import "flowstone:asset/context@0.1.0" "current" (func $current (param i32)))
(func $start
  (call $current (i32.const 2048))
  (if (i32.load (i32.const 2060)) (then unreachable)))
(start $start)
