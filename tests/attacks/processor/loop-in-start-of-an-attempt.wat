;; Behaves while it is deployed: its start function loops only where there is an asset to be made.
;; expect: timed-out
;; says: it was stopped while it was instantiated, before it was called, at its deadline of 300 ms
;; limits: timeout=300ms

(import "flowstone:asset/context@0.1.0" "current" (func $current (param i32)))
(func $start
  (call $current (i32.const 2048))
  ;; The length of the asset's name: nothing while it is described.
  (if (i32.load (i32.const 2060)) (then (loop $again (br $again)))))
(start $start)
