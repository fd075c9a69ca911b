;; Describes 1,025 assets.
;; expect: not-described out-of-bounds
;; says: 1025 assets, more than 1024

(memory (export "memory") 4)
(func $describe (result i32)
  (i32.store (i32.const 2048) (i32.const 65536)) (i32.store (i32.const 2052) (i32.const 1025))
  (i32.const 2048))
