;; Returns a case that its type does not have.
;; expect: trapped
;; says: discriminant

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (i32.store8 (i32.const 1024) (i32.const 9))
  (i32.const 1024))
