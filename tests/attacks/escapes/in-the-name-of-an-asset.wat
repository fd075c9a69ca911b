;; Describes an asset whose name is the same.
;; expect: not-described out-of-bounds
;; says: tags that repeat

(func $describe (result i32)
  (i32.store (i32.const 8192) (i32.const 4096)) (i32.store (i32.const 8196) (i32.const 50))
  ;; Two tags of the same name, so that the asset is told of.
  (i32.store (i32.const 8252) (i32.const 12288)) (i32.store (i32.const 8256) (i32.const 2))
  (i32.store (i32.const 2048) (i32.const 8192)) (i32.store (i32.const 2052) (i32.const 1))
  (i32.const 2048))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
