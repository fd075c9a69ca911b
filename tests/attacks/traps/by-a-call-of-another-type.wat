;; Calls a function through a table as if it had another type.
;; expect: trapped
;; says: indirect call

(table funcref (elem $f))
(func $f)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (drop (call_indirect (param i64) (result i64) (i64.const 1) (i32.const 0)))
  (i32.const 1024))
