;; Logs what clears a screen, names a window, fills a clipboard and turns text around; in a field, too.
;; expect: succeeded

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (i32.store (i32.const 8192) (i32.const 4096)) (i32.store (i32.const 8196) (i32.const 51))
  (i32.store (i32.const 8200) (i32.const 4096)) (i32.store (i32.const 8204) (i32.const 51))
  (call $log (i32.const 2) (i32.const 4096) (i32.const 51) (i32.const 8192) (i32.const 1))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
