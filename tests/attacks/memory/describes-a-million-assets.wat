;; Describes 200,000 assets, all of them empty.
;; expect: not-described trapped
;; says: fuel allocated for hostcalls has been exhausted

(memory (export "memory") 256)
(func $describe (result i32)
  (i32.store (i32.const 2048) (i32.const 65536)) (i32.store (i32.const 2052) (i32.const 200000))
  (i32.const 2048))
